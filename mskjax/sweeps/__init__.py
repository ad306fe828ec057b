"""Hyper-parameter search on Optuna, chosen by validation patients read end to end.

`declared` is what a sweep file says, `space` what may differ between trials, `storage` where trials
are recorded, `trials` who works on which, `worker` the loop of one worker, `objective` what a trial
does, `results` and `page` what is left at the end.  Nothing but `mskjax.sweep` imports it, for
Optuna is an extra.
"""
