"""What a program's equations are: facts about values, and the steps that rules act on.

`read` calls the other modules in order. Each claims the equations of one construct and
makes steps of them; the module of the same name in `jaxlrp._rewriting` evaluates these.
"""
