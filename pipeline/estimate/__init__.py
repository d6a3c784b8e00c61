"""What a planned run will take: its work from a sample of headers, its time from an earlier run or a trial."""
