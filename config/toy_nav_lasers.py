# The original, partially observed world: 3 lasers and 2 bumpers, no pose. The policy estimates where it is from what it
# did and observed (StateEstimator in nanopilot/auxiliary.py); the rest is as in train.py.
# $ python train.py config/toy_nav_lasers.py
# 53 minutes on one CPU core, about half of it on two; it carried out 67% of the unseen prompts of an earlier, narrower
# language: data/toy_nav/experiments.md.
out_dir = 'out-toy-nav-lasers'
obs_names = 'laser_left,laser_ahead,laser_right,bumper_left,bumper_right'
privileged_obs = 'x,y,cos,sin'
max_iters = 16000
