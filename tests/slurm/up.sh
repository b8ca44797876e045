#!/usr/bin/env bash
# Usage: up.sh ROOT PORT [NODES]
#
# Starts a Slurm of this user's own on the loopback address, without systemd: munged, slurmctld
# and one slurmd for each virtual node n1, n2, ..., with 8 pretended cores and 4 pretended GPUs each.
# Everything is kept below ROOT, which `down.sh ROOT` ends again. The controller listens on PORT,
# node i on PORT + i. ROOT/env.sh has what a client needs.
set -euo pipefail

root=$1 port=$2 n_nodes=${3:-2}
host=$(hostname -s)
user=$(id -un)
PATH=$PATH:/usr/sbin:/sbin

if [[ -e $root/slurm.conf ]]; then
  echo "$root: there is one already; end it with down.sh" >&2
  exit 1
fi
# Else srun would listen on, and Slurm talk over, another address.
if [[ $(getent hosts "$host") != 127.* ]]; then
  echo "$host is not a loopback address in /etc/hosts" >&2
  exit 1
fi

# munged wants every directory above its socket safe from others.
mkdir -p "$root"/{run,log,state,spool,munge,tmp,lib}
chmod 755 "$root"
(umask 077 && head -c 128 /dev/urandom >"$root/munge/key")

# Slurm loads libpmix.so, a name that only the development package (libpmix-dev) has. Some builds of
# it look for that in the linker's path, others in the package's own directory alone.
pmix=$(ldconfig -p | awk '$1 == "libpmix.so.2" { path = $NF } END { print path }')
if [[ -n $pmix ]]; then ln -sf "$pmix" "$root/lib/libpmix.so"; fi

{
  cat <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$root/munge/socket
CredType=cred/munge
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool/%n
TmpFS=$root/tmp/%n
SlurmctldPidFile=$root/run/slurmctld.pid
SlurmdPidFile=$root/run/slurmd-%n.pid
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=2,sched_interval=2,sched_min_interval=100000,batch_sched_delay=0
MpiDefault=none
GresTypes=gpu
ReturnToService=2
InactiveLimit=0
KillWait=10
OverTimeLimit=0
MinJobAge=600
JobRequeue=1
JobCompType=jobcomp/filetxt
JobCompLoc=$root/log/jobs.txt
CONF
  for ((i = 1; i <= n_nodes; i++)); do
    echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + i)) CPUs=8 Gres=gpu:4 State=UNKNOWN"
  done
  echo "PartitionName=test Nodes=ALL Default=YES MaxTime=1:00:00 DefaultTime=5 State=UP"
} >"$root/slurm.conf"

# Any devices do for pretended GPUs: without control groups Slurm only counts and names them.
for device in full null random zero; do
  echo "NodeName=n[1-$n_nodes] Name=gpu File=/dev/$device"
done >"$root/gres.conf"

# One machine's nodes share its memory, over which Open MPI would talk across them and fail.
cat >"$root/env.sh" <<ENV
export SLURM_CONF='$root/slurm.conf' LD_LIBRARY_PATH='$root/lib'
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo
ENV
# shellcheck source=/dev/null
. "$root/env.sh"

munged --force --key-file="$root/munge/key" --socket="$root/munge/socket" \
  --pid-file="$root/run/munged.pid" --log-file="$root/log/munged.log" \
  --seed-file="$root/munge/seed"
slurmctld
for ((i = 1; i <= n_nodes; i++)); do
  mkdir -p "$root/tmp/n$i" "$root/spool/n$i"
  slurmd -N "n$i"
done
for _ in {1..150}; do
  if (($(sinfo --noheader --Node --states=idle 2>/dev/null | wc -l) == n_nodes)); then exit 0; fi
  sleep 0.1
done
echo "the nodes did not come up; see $root/log" >&2
exit 1
