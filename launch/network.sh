# shellcheck shell=bash
# How ranks of several nodes find each other's network: sourced by run.sh; source it before a torchrun of your own.
# What is set already stays. Only what goes wrong by default is set here.

# NCCL: why a call failed, in its own words; silent by default, it leaves "unhandled system error". Quiet while all is well.
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}

# gloo, which carries the counts of each step, listens where the machine's name leads. Many systems lead it to themselves
# (127.0.1.1), where no other node gets through: then the interface of the default route is the better choice.
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

# Left to the libraries, which do well:
# - NCCL_SOCKET_IFNAME: NCCL passes over loopback and Docker's networks by itself. Where it or gloo takes the wrong one
#   of several, name the right one: NCCL_SOCKET_IFNAME=ens1f0 GLOO_SOCKET_IFNAME=ens1f0.
# - NCCL_IB_*, NCCL_NET_GDR_LEVEL, NCCL_ALGO, NCCL_PROTO: tuned from the topology that NCCL finds.
# - NCCL_SOCKET_NTHREADS, NCCL_NSOCKS_PERTHREAD: without InfiniBand one socket does not fill 100 Gbit/s; 4 and 4 may.
#   NCCL_DEBUG=INFO says NET/IB or NET/Socket. engine.compress_gradients=true halves what has to travel.
# - TORCH_NCCL_*: torch ends a run whose collective hangs longer than engine.timeout_seconds by default.
