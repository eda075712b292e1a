# Swing a pole up and balance it, on a cart whose masses and length it has to find out.
# $ python prepare.py --dataset=swingup && python train.py config/swingup.py
# $ python sample_policy.py --out_dir=out-swingup --eval=test
# About 20 minutes on one core; it swings up 100% of unseen starts and of unseen parameters, and stays up: see
# data/swingup/readme.md
out_dir = 'out-swingup'
dataset = 'swingup'
source_weights = ''
drop_bd = 0.5
text_len = 0
past_actions = True
obs_stack = 0
block_size = 100  # steps of 2: 4 of 10 seconds are in view
chunk = 2
n_layer = 4
n_future = 0
next_obs = 0.1
max_iters = 2500
eval_interval = 500
