"""Every command of Redis that Aegis knows, and what each does to the connection it is sent on.

Sharing is opt-in: a command stands in `SHARED` because it leaves nothing behind on its connection
and always gets exactly one reply. What stands nowhere (a module's command, a newer server's, one
under another name) may do anything, so it gets a tunnel.

Authority: clearClientConnectionState in redis/src/networking.c, which lists a connection's state,
and COMMAND's flags (src/commands/*.json): `blocking`, `pubsub`, `noscript`, `no_multi`.
tests/framers/test_resp_server.py holds the table against a running server's COMMAND.
"""

from enum import IntEnum, auto
from typing import NamedTuple


class Act(IntEnum):
    """What a request does, as far as its connection is concerned."""

    SHARE = auto()
    """Nothing: one reply, no trace."""
    BLOCK = auto()
    """It may wait, and everything behind it on its connection too; then one reply."""
    MAY_BLOCK = auto()
    """As BLOCK if it has the option BLOCK, else as SHARE."""
    TUNNEL = auto()
    """Its replies cannot be counted, or its trace cannot be removed."""
    CONTAINER = auto()
    """Its second word tells: `SUBCOMMANDS`."""
    MULTI = auto()
    LEAVE = auto()
    """EXEC and DISCARD: end what MULTI and WATCH began."""
    WATCH = auto()
    UNWATCH = auto()
    ASKING = auto()
    READONLY = auto()
    READWRITE = auto()
    SELECT = auto()
    AUTH = auto()
    HELLO = auto()
    RESET = auto()
    QUIT = auto()
    WAIT = auto()
    SET_NAME = auto()
    GET_NAME = auto()
    SET_INFO = auto()
    NOTIFY = auto()
    """Asks for pushes where a server has them; stock clients ask at connect and live without."""
    WEB = auto()
    """Redis closes the connection, against cross-protocol scripting (securityWarningCommand)."""


class Rule(NamedTuple):
    """One command's line in the table."""

    act: Act
    why: str = ""
    """For TUNNEL and BLOCK the pin's reason."""


SHARE = Rule(Act.SHARE)
RESCUE = Rule(Act.BLOCK, "out of band")
"""Ends what others wait for, so it must not wait behind them: on a pipe of its own."""
UNKNOWN = Rule(Act.TUNNEL, "unknown")
LONGEST_NAME = 32
"""Longer than any name here; a longer one is unknown without a look-up."""

SHARED = """
    APPEND BGREWRITEAOF BGSAVE BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS COPY DBSIZE DECR DECRBY
    DEL DELEX DIGEST DUMP ECHO EVAL EVALSHA EVALSHA_RO EVAL_RO EXISTS EXPIRE EXPIREAT EXPIRETIME
    FAILOVER FCALL FCALL_RO FLUSHALL FLUSHDB GEOADD GEODIST GEOHASH GEOPOS GEORADIUS
    GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GEOSEARCHSTORE GET GETBIT GETDEL
    GETEX GETRANGE GETSET HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX
    HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL
    HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL HVALS INCR INCRBY INCRBYFLOAT INFO KEYS
    LASTSAVE LCS LINDEX LINSERT LLEN LMOVE LMPOP LOLWUT LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET
    LTRIM MGET MIGRATE MOVE MSET MSETEX MSETNX PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PFADD PFCOUNT
    PFDEBUG PFMERGE PFSELFTEST PING PSETEX PTTL PUBLISH RANDOMKEY RENAME RENAMENX REPLICAOF RESTORE
    RESTORE-ASKING ROLE RPOP RPOPLPUSH RPUSH RPUSHX SADD SAVE SCAN SCARD SDIFF SDIFFSTORE SET
    SETBIT SETEX SETNX SETRANGE SFLUSH SINTER SINTERCARD SINTERSTORE SISMEMBER SLAVEOF SMEMBERS
    SMISMEMBER SMOVE SORT SORT_RO SPOP SPUBLISH SRANDMEMBER SREM SSCAN STRLEN SUBSTR SUNION
    SUNIONSTORE SWAPDB TIME TOUCH TTL TYPE UNLINK XACK XACKDEL XADD XAUTOCLAIM XCLAIM XDEL XDELEX
    XLEN XPENDING XRANGE XREVRANGE XSETID XTRIM ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER
    ZINTERCARD ZINTERSTORE ZLEXCOUNT ZMPOP ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX
    ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE
    ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION ZUNIONSTORE
"""
"""Redis 7.0 to 8.4. Scripts are here: what they may not call (flag `noscript`) is what leaves a
trace, and the rest they run on a connection of their own (scriptPrepareForRun in src/script.c).
FAILOVER, REPLICAOF, SAVE and their like act on the whole server, whoever asks on whatever pipe."""

SHARED_OF_REDIS_8 = """
    BF.ADD BF.CARD BF.EXISTS BF.INFO BF.INSERT BF.LOADCHUNK BF.MADD BF.MEXISTS BF.RESERVE
    BF.SCANDUMP CF.ADD CF.ADDNX CF.COUNT CF.DEL CF.EXISTS CF.INFO CF.INSERT CF.INSERTNX
    CF.LOADCHUNK CF.MEXISTS CF.RESERVE CF.SCANDUMP CMS.INCRBY CMS.INFO CMS.INITBYDIM CMS.INITBYPROB
    CMS.MERGE CMS.QUERY FT.AGGREGATE FT.ALIASADD FT.ALIASDEL FT.ALIASUPDATE FT.ALTER FT.CREATE
    FT.CURSOR FT.DICTADD FT.DICTDEL FT.DICTDUMP FT.DROPINDEX FT.EXPLAIN FT.EXPLAINCLI FT.INFO
    FT.PROFILE FT.SEARCH FT.SPELLCHECK FT.SUGADD FT.SUGDEL FT.SUGGET FT.SUGLEN FT.SYNDUMP
    FT.SYNUPDATE FT.TAGVALS FT._LIST JSON.ARRAPPEND JSON.ARRINDEX JSON.ARRINSERT JSON.ARRLEN
    JSON.ARRPOP JSON.ARRTRIM JSON.CLEAR JSON.DEL JSON.FORGET JSON.GET JSON.MERGE JSON.MGET
    JSON.MSET JSON.NUMINCRBY JSON.NUMMULTBY JSON.OBJKEYS JSON.OBJLEN JSON.RESP JSON.SET
    JSON.STRAPPEND JSON.STRLEN JSON.TOGGLE JSON.TYPE TDIGEST.ADD TDIGEST.BYRANK TDIGEST.BYREVRANK
    TDIGEST.CDF TDIGEST.CREATE TDIGEST.INFO TDIGEST.MAX TDIGEST.MERGE TDIGEST.MIN TDIGEST.QUANTILE
    TDIGEST.RANK TDIGEST.RESET TDIGEST.REVRANK TDIGEST.TRIMMED_MEAN TOPK.ADD TOPK.COUNT TOPK.INCRBY
    TOPK.INFO TOPK.LIST TOPK.QUERY TOPK.RESERVE TS.ADD TS.ALTER TS.CREATE TS.CREATERULE TS.DECRBY
    TS.DEL TS.DELETERULE TS.GET TS.INCRBY TS.INFO TS.MADD TS.MGET TS.MRANGE TS.MREVRANGE
    TS.QUERYINDEX TS.RANGE TS.REVRANGE VADD VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS
    VRANDMEMBER VRANGE VREM VSETATTR VSIM
"""
"""What Redis 8 has from modules; a cursor of FT.AGGREGATE has a number and belongs to an index."""

BLOCKING = "BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN"

TUNNELS = {
    # One confirmation for each channel, then messages at any time. UNSUBSCRIBE without channels:
    # as many as there were, or one.
    "subscribe": "PSUBSCRIBE SSUBSCRIBE SUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE",
    "monitor": "MONITOR",
    "replication": "PSYNC REPLCONF SYNC",
    "debug": "DEBUG",  # SEGFAULT has no reply, PROTOCOL sends pushes and attributes
    "shutdown": "SHUTDOWN",  # no reply when it succeeds; the client sees the end, as it expects
}

ACTS = {
    Act.MAY_BLOCK: "XREAD XREADGROUP",
    Act.MULTI: "MULTI",
    Act.LEAVE: "DISCARD EXEC",
    Act.WATCH: "WATCH",
    Act.UNWATCH: "UNWATCH",
    Act.ASKING: "ASKING",
    Act.READONLY: "READONLY",
    Act.READWRITE: "READWRITE",
    Act.SELECT: "SELECT",
    Act.AUTH: "AUTH",
    Act.HELLO: "HELLO",
    Act.RESET: "RESET",
    Act.QUIT: "QUIT",
    Act.WAIT: "WAIT WAITAOF",
    Act.WEB: "POST HOST:",
}

SHARED_SUBCOMMANDS = {
    "ACL": "CAT DELUSER DRYRUN GENPASS GETUSER HELP LIST LOAD LOG SAVE SETUSER USERS WHOAMI",
    "CLIENT": "GETREDIR HELP ID INFO KILL LIST PAUSE TRACKINGINFO UNBLOCK",
    "CLUSTER": """ADDSLOTS ADDSLOTSRANGE BUMPEPOCH COUNT-FAILURE-REPORTS COUNTKEYSINSLOT DELSLOTS
        DELSLOTSRANGE FAILOVER FLUSHSLOTS FORGET GETKEYSINSLOT HELP INFO KEYSLOT LINKS MEET MYID
        MYSHARDID NODES REPLICAS REPLICATE RESET SAVECONFIG SET-CONFIG-EPOCH SETSLOT SHARDS SLAVES
        SLOT-STATS SLOTS""",
    "COMMAND": "COUNT DOCS GETKEYS GETKEYSANDFLAGS HELP INFO LIST",
    "CONFIG": "GET HELP RESETSTAT REWRITE SET",
    "FUNCTION": "DELETE DUMP FLUSH HELP LIST LOAD RESTORE STATS",
    "LATENCY": "DOCTOR GRAPH HELP HISTOGRAM HISTORY LATEST RESET",
    "MEMORY": "DOCTOR HELP MALLOC-STATS PURGE STATS USAGE",
    "MODULE": "HELP LIST LOAD LOADEX UNLOAD",
    "OBJECT": "ENCODING FREQ HELP IDLETIME REFCOUNT",
    "PUBSUB": "CHANNELS HELP NUMPAT NUMSUB SHARDCHANNELS SHARDNUMSUB",
    "SCRIPT": "EXISTS FLUSH HELP LOAD",
    "SLOWLOG": "GET HELP LEN RESET",
    "XGROUP": "CREATE CREATECONSUMER DELCONSUMER DESTROY HELP SETID",
    "XINFO": "CONSUMERS GROUPS HELP STREAM",
}

OTHER_SUBCOMMANDS = {
    ("CLIENT", "SETNAME"): Rule(Act.SET_NAME),
    ("CLIENT", "GETNAME"): Rule(Act.GET_NAME),
    ("CLIENT", "SETINFO"): Rule(Act.SET_INFO),
    ("CLIENT", "MAINT_NOTIFICATIONS"): Rule(Act.NOTIFY),  # redis-py 7, node-redis 5, go-redis 9.16
    ("CLIENT", "UNPAUSE"): RESCUE,
    ("FUNCTION", "KILL"): RESCUE,
    ("SCRIPT", "KILL"): RESCUE,
    ("CLIENT", "REPLY"): Rule(Act.TUNNEL, "client reply"),  # OFF and SKIP: no reply
    ("CLIENT", "TRACKING"): Rule(Act.TUNNEL, "tracking"),  # pushes at any time
    ("CLIENT", "CACHING"): Rule(Act.TUNNEL, "tracking"),
    ("CLIENT", "NO-EVICT"): Rule(Act.TUNNEL, "client flags"),  # RESET of Redis 7.0 leaves it set
    ("CLIENT", "NO-TOUCH"): Rule(Act.TUNNEL, "client flags"),
    ("SCRIPT", "DEBUG"): Rule(Act.TUNNEL, "script debug"),  # RESET leaves it on
}


def _commands() -> dict[bytes, Rule]:
    table = dict.fromkeys((SHARED + SHARED_OF_REDIS_8).split(), SHARE)
    table |= {name: Rule(Act.BLOCK, "blocking") for name in BLOCKING.split()}
    table |= {name: Rule(Act.CONTAINER) for name in SHARED_SUBCOMMANDS}
    for why, names in TUNNELS.items():
        table |= {name: Rule(Act.TUNNEL, why) for name in names.split()}
    for act, names in ACTS.items():
        table |= {name: Rule(act) for name in names.split()}
    return {name.encode(): rule for name, rule in table.items()}


def _subcommands() -> dict[bytes, dict[bytes, Rule]]:
    table = {
        container: {name.encode(): SHARE for name in names.split()}
        for container, names in SHARED_SUBCOMMANDS.items()
    }
    for (container, name), rule in OTHER_SUBCOMMANDS.items():
        table[container][name.encode()] = rule
    return {container.encode(): rules for container, rules in table.items()}


COMMANDS = _commands()
SUBCOMMANDS = _subcommands()


def find_rule(name: bytes) -> Rule:
    r"""Return the rule for a command's first word, in any case.

    Redis compares names as C strings once a bucket of its table is found (dictSdsKeyCaseCompare in
    src/server.c): ``MULTI\0x`` may be taken for MULTI. Here it is unknown, and tunnelled.
    """
    return COMMANDS.get(name.upper(), UNKNOWN)


def find_rule_within(container: bytes, words: list[bytes]) -> Rule:
    """Return the rule for a container's request; alone, it gets an error."""
    if len(words) < 2:
        return SHARE
    return SUBCOMMANDS[container.upper()].get(words[1].upper(), UNKNOWN)
