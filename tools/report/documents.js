// Samples of documents: search and filter.
"use strict";
