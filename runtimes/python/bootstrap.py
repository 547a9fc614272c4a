"""Entry of Mayfly's Python runtime. Kept to a few lines: a script is compiled at every start, a module may come from bytecode."""

from mayfly_runtime import main

main()
