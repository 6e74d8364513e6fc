"""`make report`: a mix, its documents and a model on one page of HTML that needs nothing beside it."""
