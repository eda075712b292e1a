cd /tmp/encrun; export OMP_NUM_THREADS=1
P=/work/venv/bin/python
while [ ! -f learned.ready ]; do sleep 1; done
k=bert; (time taskset -c 1 $P prepare.py --texts=2 --text_encoder=$k --out_dir=p_$k --archive_dir=arch) > prep_$k.log 2>&1
for k in bpe bert; do (time taskset -c 1 $P train.py config/toy_nav_cpu.py --data_dir=p_$k --out_dir=o_$k --max_iters=5000) > train_$k.log 2>&1; done; echo > run1.done
