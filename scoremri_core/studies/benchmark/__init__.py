"""Time, memory and image quality of every method on one frame, and the floor below which none goes.

`case` is what every row is given, `methods` what each runs, `workers` the processes they run in,
`report` the table that comes of it.
"""
