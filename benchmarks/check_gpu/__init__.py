"""`python -m benchmarks.check_gpu`: does all work on a GPU, with the CPU's numbers, and as fast as it is meant to?"""
