"""The reported defects B… and the hypotheses N… of the posted series, each as plain `partitioned` plus that defect."""
