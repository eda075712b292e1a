"""
A page to steer a policy by words, in a browser, while it drives: sample_policy.py --serve.

drives.py: robots that are on the way, in one batch. sessions.py: what a browser asks, and what it is told. server.py:
the web server. page.html, page.css, page.js: the page. What a data set shows there: data/page.py.
"""
