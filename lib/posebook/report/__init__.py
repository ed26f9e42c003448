"""The report: figures, HTML tables, notebook execution and HTML pages."""
