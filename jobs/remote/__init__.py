"""Clients for commands that run on other machines: as jobs of a Ray cluster or as RayJobs of Kubernetes."""
