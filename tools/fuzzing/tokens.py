"""The words that formats are made of, for mutations to put in."""

from __future__ import annotations

JSON = (
    b'{"text":"', b'"}', b"[", b"]", b"{", b"}", b"\\u0000", b"\\ud800", b"\\udc00", b":", b",", b"null", b'"metadata":', b'"id":',
    b"\n\n", b"1e400",
)  # fmt: skip
XML = (
    b"<page>", b"</page>", b"<text>", b"</text>", b"<revision>", b"</revision>", b"<ns>0</ns>", b"<id>1</id>", b"<title>", b"</title>",
    b"<siteinfo>", b"</siteinfo>", b"<mediawiki>", b"</mediawiki>", b"<redirect/>", b"<!DOCTYPE x [<!ENTITY a 'b'>]>", b"&a;", b"&amp;",
    b"&#0;", b"<![CDATA[", b"]]>", b"<!--", b"-->", b"<?x ?>", b'<?xml version="1.0" encoding="utf-16"?>', b' xmlns="x"', b' xmlns:a="b"',
    b"<a:b/>",
)  # fmt: skip
JATS = (
    b"<article>", b"<front>", b"<article-meta>", b"<body>", b"<sec>", b"<p>", b"<title>", b"<fig>", b"</fig>tail", b"<year>", b"<list>",
    b"<pub-date><year>2014</year><month/></pub-date>", b"<!ENTITY x SYSTEM 'file:///etc/passwd'>", b"&x;", b"&#x41;", b"<table-wrap>",
)  # fmt: skip
WIKI = (
    b"{{", b"}}", b"{{{", b"}}}", b"[[", b"]]", b"[", b"]", b"{|", b"|}", b"|-", b"||", b"|", b"!!", b"==", b"=", b"''", b"'''''",
    b"<ref>", b"</ref>", b"<ref name=", b"/>", b"<nowiki>", b"</nowiki>", b"<math>", b"</math>", b"<!--", b"-->", b"&#", b"&amp;",
    b"&#x110000;", b";", b":", b"*", b"#", b"http://", b"//", b"__NOTOC__", b"-{", b"}-", b"<div>", b"</div>", b"<br", b">", b"(,",
    b" ;)", b"\n", b"~~~~", b"<pre>", b"<b", b'="',
)  # fmt: skip
TEX = (
    b"\\section{", b"\\section[", b"]{", b"}", b"\\newcommand{\\a}{", b"\\def\\b{", b"\\def \\c\n {", b"\\a ", b"\\b.", b"%", b"\\%",
    b"\n%", b"\\appendix", b"\\bibliography{", b"\\begin{thebibliography}", b"\\chapter*", b"{", b'\\\\',
    b"\\newcommand*{\\b}{\\a \\a }\n", b"\\def\\a{\\b \\b }\n", b"\r\n", b"\r",
)  # fmt: skip
HTML = (
    b"<div>", b"</div>", b"<p>", b"<table>", b"<tr>", b"<td>", b"<pre>", b"<code>", b"<script>", b"</script>", b"<style>", b"<math>",
    b"<svg>", b"<template>", b"<iframe>", b"<!--", b"-->", b"<![CDATA[", b"&amp;", b"&#0;", b"&#x110000;", b"<ul><li>", b"<a href='x'>",
    b"<select><option>", b"<b><i>", b"<frameset>", b'<link rel="canonical" href="', b"<title>", b"<base href=",
    b'<script type="math/tex">', b"$$", b"\\(", b"\\[", b"<img alt='$x$'>", b"<annotation>", b"<mfrac>", b"<msub>", b"<mtable>",
    b"charset=utf-7", b"charset=x-user-defined", b"<noscript>", b"<h1>", b"<br>", b"<article>", b"<body>", b"<form>",
)  # fmt: skip
WARC = (
    b"WARC/1.0\r\n", b"WARC/1.1\r\n", b"WARC-Type: response\r\n", b"WARC-Type: revisit\r\n", b"Content-Length: ",
    b"Content-Length: -1\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: br\r\n", b"Content-Encoding: deflate\r\n", b"Content-Type: text/html; charset=", b"utf-16", b"base64", b"idna",
    b"rot13", b"filedesc://x 1.2.3.4 2020 text/html 5\n", b"1 0 x\n", b"URL IP-address\n",
    b"Content-Type: application/http; msgtype=response\r\n", b"WARC-Target-URI: x\r\n", b" folded\r\n", b"fffffffff\r\n", b"0\r\n\r\n",
    b"GET / HTTP/1.0\r\n",
)  # fmt: skip
RST = (
    b"====\n", b"----\n", b"~~~~\n", b".. _x:\n", b"Why?\n", b"\n\n", b"::\n", b" ", b"=", b"####\nQ\n####\n",
)  # fmt: skip
YAML = (
    b": ", b"- ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!!python/object:os.system ", b"<<: *a", b"|\n", b">-\n", b"? ", b"# ", b"'",
    b'"', b"\t", b"---\n", b"...\n", b"%YAML 1.1\n", b"~", b"null", b"true", b"1e3", b"0.1%", b"3.86T", b"name: ", b"kind: ",
    b"drop:\n  a: ", b"kind: regex", b"kind: parquet", b"kind: fasttext", b"kind: url", b"kind: decontaminate", b"file: ", b"column: ",
    b"near", b"paragraphs", b"dedupe: [near]", b"sample: []", b"hub: ", b"attributes:\n  a: {kind: ", b"../x", b"filters: [c4]",
    b"prepare: [", b"tokenizer: a",
)  # fmt: skip
SQL = (
    b"stars", b"words", b"language", b" < ", b" AND ", b" OR ", b"NOT ", b"(", b")", b"'", b'"', b",", b"NULL",
    b"read_csv('/etc/passwd')", b"getenv('HOME')", b"random()", b"repeat('x', 1000000000)", b"SELECT 1", b";", b"--", b"/*", b"*/",
    b"::INTEGER", b"::BLOB", b"[1, 2]", b"regexp_matches(language, '(a*)*b')", b"regexp_replace", b"range(1000000000)", b"list_sum",
    b"generate_series", b"?", b"$1", b" OVER ()", b"count(*)", b"CASE WHEN ", b" THEN ", b" END", b"9223372036854775807", b" + ", b" * ",
    b"1e308", b" / 0", b"current_setting('x')", b"{'a': 1}", b"lpad('x', 2000000000, 'y')", b"x -> x", b"COLUMNS(*)", b"EXISTS ", b"%",
    b"^", b"||", b"E'\\x00'", b"~", b"LIKE ", b" COLLATE x", b"interval 1 day",
)  # fmt: skip
