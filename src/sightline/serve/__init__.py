"""A model behind an address: an OpenAI-compatible API, a page, and the backends that answer.

`server` starts it, `app` holds the routes, `gate` stands in front of them, `backend` says what a backend must do.
FastAPI and uvicorn are imported here and nowhere else in the program.
"""
