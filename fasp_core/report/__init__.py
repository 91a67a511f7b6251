"""A report on one set of heads: one HTML file that needs no network, made by the app and the command line alike.

`gather.py` measures and reads what is stored, `charts.py` draws, `tables.py` makes the rows, `repeat.py` the commands
that give the same again, `page.py` puts it into `report.html.jinja`.
"""
