"""The demo, a Gradio app over codec and eval.metrics. Nothing is here yet: the command line is the way in."""
