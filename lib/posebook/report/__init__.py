"""The report: plots, HTML tables, notebook execution and HTML pages."""
