"""The Jupyter server extension: clusters and jobs over REST, changes as events, and Ray's dashboard."""
