"""The HTTP gateway: routes, problem documents, OpenAPI, and the Serve deployment around them."""
