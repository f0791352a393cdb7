"""Processes of our own: started, watched, and ended so that nothing of them is left.

=============  ==============================================================================
``leftovers``  what a killed run leaves on the machine, and taking exactly that away
``child``      one child: its environment, log, time limit, and what its log says last
``tidy``       a command in the foreground, of which nothing is left when it ends
``keeper``     the parent of a server, which ends with whoever asked for it
=============  ==============================================================================
"""
