"""The embedded cluster: a Ray and a Redis on this machine, started on first use and never left behind."""
