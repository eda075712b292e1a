# Swing a pole up and balance it, on a cart whose masses and length it has to find out.
# $ python prepare.py --dataset=swingup && python train.py config/swingup.py
# $ python sample_policy.py --out_dir=out-swingup --eval=test
# About 20 minutes on one core; up, and stays: 100% of unseen starts and of unseen parameters, see data/swingup/readme.md
out_dir = 'out-swingup'
dataset = 'swingup'
text_len = 0
fuse = 'sum'
block_size = 100  # steps of 2: 4 of 10 seconds are in view
chunk = 2
n_layer = 4
n_head = 4
n_embd = 128
n_future = 0
next_obs = 0.1
batch_size = 16
optimizer = 'muon'
learning_rate = 2e-3
max_iters = 2500
eval_interval = 500
rollouts = 100
log_interval = 100
