"""A labelled data set kept beside a classification's rows: sorted, corrected, compared and exported."""
