"""The exec API: parses requests, calls the library, renders answers. Needs the extra `server`."""
