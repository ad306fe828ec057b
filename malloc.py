import resource,time,sys,ctypes
sys.argv=["ab.py",sys.argv[1],"/tmp/w/speed","/tmp/w/speed","1",sys.argv[2]]
exec(open("/tmp/w/bench/ab.py").read().split("fs = [load")[0])
run,f=load("/tmp/w/speed")
run();run()
print(f.memory_analysis().temp_size_in_bytes)
libc=ctypes.CDLL("libc.so.6")
def keep(on):
    libc.mallopt(-3, 2**30 if on else 128*1024)   # M_MMAP_THRESHOLD
    libc.mallopt(-1, 2**31-1 if on else 128*1024) # M_TRIM_THRESHOLD
T={0:[],1:[]};S={0:[],1:[]};C={0:[],1:[]}
for k in range(12):
    for on in (k%2, 1-k%2):
        keep(on); run()
        r0=resource.getrusage(resource.RUSAGE_SELF);a=time.perf_counter();p=time.process_time()
        run()
        T[on].append(time.perf_counter()-a);C[on].append(time.process_time()-p)
        r1=resource.getrusage(resource.RUSAGE_SELF); S[on].append((r1.ru_stime-r0.ru_stime, r1.ru_minflt-r0.ru_minflt))
for on in (0,1): print(on, "wall min/q1/med", np.round(np.quantile(T[on],(0,.25,.5))*1e3), "cpu", np.median(C[on])*1e3, "sys, faults", np.median(S[on],0))
