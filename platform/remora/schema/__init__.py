"""How data of earlier releases is read, what an app's data looks like, and whether a change of it is compatible.

``reading`` brings what the journal holds to the present version, ``describe`` puts an app's shapes into
plain JSON, ``compare`` says of two such descriptions what of the old one the new one cannot read.
"""
