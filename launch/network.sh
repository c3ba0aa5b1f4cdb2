# shellcheck shell=bash
# Network variables for ranks on several nodes. run.sh sources this file; source it before a torchrun of your own.
# Variables that are set already are kept, and only those with a bad default are set.

# NCCL: log why a call failed; by default it only says "unhandled system error". Logs nothing while there is no error.
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}

# gloo, which exchanges the counts of each step, listens on the address of the hostname. On many systems that is the
# machine itself (127.0.1.1), which other nodes cannot reach: then use the interface of the default route.
nodes=${PET_NNODES:-${CROSS_SIZE:-${SLURM_STEP_NUM_NODES:-1}}} # torchrun's, DeepSpeed's, Slurm's
if [[ $nodes != 1 && -z ${GLOO_SOCKET_IFNAME:-} && -r /proc/net/route ]]; then
  case $(getent hosts "$(uname -n)" || true) in
    127.* | ::1* | "")
      GLOO_SOCKET_IFNAME=$(awk '$2 == "00000000" && !found++ { print $1 }' /proc/net/route)
      [[ -z $GLOO_SOCKET_IFNAME ]] || export GLOO_SOCKET_IFNAME
      ;;
  esac
fi
unset nodes

# Left to the libraries, whose defaults are good:
# - NCCL_SOCKET_IFNAME: NCCL skips loopback and Docker's networks by itself. If it or gloo uses the wrong interface, name
#   the right one: NCCL_SOCKET_IFNAME=ens1f0 GLOO_SOCKET_IFNAME=ens1f0.
# - NCCL_IB_*, NCCL_NET_GDR_LEVEL, NCCL_ALGO, NCCL_PROTO: tuned from the topology that NCCL finds.
# - NCCL_SOCKET_NTHREADS, NCCL_NSOCKS_PERTHREAD: without InfiniBand, one socket does not saturate 100 Gbit/s; 4 and 4 may.
#   NCCL_DEBUG=INFO shows NET/IB or NET/Socket. engine.compress_gradients=true halves the traffic.
# - TORCH_NCCL_*: torch ends a run whose collective hangs longer than engine.timeout_seconds by default.
