"""Batches: one template sent to many recipients, accepted as a whole and put into the queue group by group."""
