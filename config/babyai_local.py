# BabyAI's GoToLocal, PickupLoc and PutNextLocal in one policy: go to, pick up, put next to, in one room.
# $ python prepare.py --dataset=babyai --size=2 --env_kwargs='{"level": "GoToLocal,PickupLoc,PutNextLocal"}'
# $ python train.py config/babyai_local.py
# $ python sample_policy.py --out_dir=out-babyai-local --eval=test --eval_episodes=512 --drawn_at=1
# 6 to 8 minutes of one core beside another run. Carried out, greedy, the mean of three seeds (with another's mission):
# GoToLocal 100% (56.4), PickupLoc 96.3 (10.2), PutNextLocal 99.2 (0.8).
out_dir = 'out-babyai-local'
dataset = 'babyai'
source_weights = 'GoToLocal=0.2,PickupLoc=0.3,PutNextLocal=0.5'
drop_bd = 0.0
text_len = 16
block_size = 16 + 16  # 16 steps
chunk = 1
head = 'ce'
n_cross_head = 4
n_layer = 3
n_future = 0
batch_size = 64
bucket = 16
max_iters = 2000
eval_interval = 250
rollouts = 0
