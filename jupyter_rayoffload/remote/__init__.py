"""All that runs on the cluster.

This package travels to clusters that have only ``ray[default]``: it imports the standard library,
cloudpickle, blake3, redis and IPython, and of this project nothing but itself, by relative imports (on the
cluster it has another, versioned name).
"""
