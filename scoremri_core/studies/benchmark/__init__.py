"""Time, memory and image quality of each method on one frame, and a lower bound of the time.

`case`: the input; `methods`: the timed runs; `workers`: their processes; `report`: the table.
"""
