"""The papers' tables and figures, one command each: python -m eval.experiments NAME.

    rows, nets, images ──training──> one JSON per finished run
        └──> mean and deviation over seeds ──> Markdown, picture

The data of each table (methods, loss weights, published figures) is written out as a literal table
where it is used.
"""
