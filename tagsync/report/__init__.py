"""Make a report: one file that answers a question, with the evidence for the answer.

* `tagsync.report.collect`: queries the record, and returns a `tagsync.report.content.Report`.
* `tagsync.report.outline`: arranges a report as a document of headings, tables and sentences.
* `tagsync.report.html`, `tagsync.report.markdown`: write a document as text.
* `tagsync.report.build`: chooses the format, keeps the file small, and writes it.

All texts of others, such as names of tags, are `tagsync.report.document.Code` in a document. Each
format escapes them in one place.
"""
