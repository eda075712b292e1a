# The swing-up controller in the size of GPT-2's smaller sisters: 16 layers, 16 heads, 512 wide, 1024 tokens, 50.9M
# parameters. For a GPU.
# $ python prepare.py --dataset=swingup --size=10 && python train.py config/swingup_gpt2.py --wandb_log
# $ torchrun --standalone --nproc_per_node=8 train.py config/swingup_gpt2.py
# Run for a few steps on a CPU only: there is no score to expect yet.
out_dir = 'out-swingup-gpt2'
dataset = 'swingup'
source_weights = ''
drop_bd = 0.5
text_len = 0
fuse = 'interleave'
past_actions = True
block_size = 1024  # 512 steps of 2 tokens, [act, obs]: a whole episode
chunk = 1
n_layer = 16
n_head = 16
n_embd = 512
n_future = 0
next_obs = 0.1
curriculum = (
    20000  # over which segments grow from 64 steps to 500, and systems far from the middle of the range come in
)
segment_from = 64
difficulty_from = 0.5
batch_size = 32
optimizer = 'adamw'
learning_rate = 1e-4
weight_decay = 0.1
warmup_iters = 2000
max_iters = 100000
eval_interval = 1000  # the latest and the best checkpoint stay ..
keep_every = 10000  # .. and these
log_interval = 50
compile = True
