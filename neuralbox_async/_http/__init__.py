"""One HTTP exchange. The only package that knows aiohttp."""
