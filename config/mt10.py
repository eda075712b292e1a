# Meta-World's MT10: ten tasks of a robot's hand, each asked for in a sentence.
# $ python prepare.py --dataset=metaworld --size=1.6 --test_share=0.34 --val_share=0.03
# $ python train.py config/mt10.py
# $ python sample_policy.py --out_dir=out-mt10 --eval=test --eval_episodes=0
# About 6 minutes of one core beside other runs; 99.1% of 539 unseen goals, the mean of three seeds:
# data/metaworld/readme.md
out_dir = 'out-mt10'
dataset = 'metaworld'
source_weights = ''
drop_bd = 0.0
text_len = 24
block_size = 24 + 8  # 8 steps of 2
chunk = 2
n_layer = 3
n_future = 0
n_freq = 0  # with sines of 950 episodes it learns them by heart and misses goals
batch_size = 32
max_iters = 1000
eval_interval = 500
rollouts = 100
