"""The demo: `python -m app` serves a Gradio page where one hears and sees what a codebook size means.

    __main__.py   options and launch
    demo.py       the page: the source on one side, a file for each tab on the other
    jobs.py       what the tabs call, without Gradio: read, code, score, edit, decode
    store.py      models, loaded once, and the files that the page shows, deleted after a while
    widgets.py    the page's own controls; their looks and manners are in static/
    api.py        the same jobs as named endpoints

It calls codec, eval.metrics and eval.baselines; there is no mathematics of its own.
"""
