"""Commands that run elsewhere: jobs of a Ray cluster and RayJobs of Kubernetes."""
