"""Other projects' test suites, straight to the server and through Aegis: are the results the same?

`__main__` runs and compares, `suites` knows each suite, `sources` fetches them, `sides` starts
server and proxy, `outcomes` reads results; `explained.toml` lists the differences that are meant.
"""
