"""The demo: `python -m app` serves a page on which one hears and sees codebook sizes.

    __main__.py      options and launch
    page.py          the page: the input on one side, the tabs on the other
    input_panel.py   the input: speech or picture, upload, microphone or camera, examples
    tabs/            a class for each tab
    widgets.py       the page's own controls; their looks and manners are in static/
    handlers.py      how the page calls the service: queues, errors in plain words
    turns.py         long jobs: progress, the newest counts, those of a page that was left end
    cancel.py        the button that cancels them
    api.py           the same work as named endpoints

    service.py       what tabs and endpoints call, without Gradio: read, code, score, decode
    originals.py     inputs, read once and within the limits
    versions.py      what a model or a classic codec made of an original
    scoring.py       figures of a version
    tokens.py        the tokens of a file, and what becomes of changed ones
    trials.py        blind tests
    store.py         models, loaded once, and the files that the page shows, deleted after a while

It calls codec, eval.metrics and eval.baselines; there is no mathematics of its own.
"""
