-- What every script uses: the time, the shard's state, calls with many arguments, the layout of a record.

local call = redis.call

-- States of a record, its first byte. A live task's state is where its id stands (see locate.lua).
local LIVE, DONE, DEAD_STATE, CANCELED_STATE = 'L', 'F', 'X', 'C'

-- State, deliveries, priority, attempt, stamp in µs, length of the tenant's name, the name; the body follows.
local HEADER = '>c1BBHdHc0'

-- A runtime whose score in LEASES is not above this has no lease any more: its claims are being taken back. The score
-- says why (see release.lua).
local NO_LEASE = 4

local CRITICAL = 6
local CRITICAL_JUMP = 4e15 -- µs: puts critical tasks before all others, and keeps their places exact doubles

local function microseconds()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Redis reads numbers as strings, and Lua would format large ones in scientific notation. `call` itself formats a number that
-- is an argument exactly, and faster.
local function integer(n) return string.format('%.0f', n) end
local function exact(n)
  if n % 1 == 0 and n < 1e15 then return string.format('%d', n) end
  return string.format('%.17g', n)
end

local SLICE = 4000 -- arguments per call: Lua's stack holds 8,000; even, so that pairs stay together

local function write_all(command, key, args, n)
  n = n or #args
  for i = 1, n, SLICE do
    call(command, key, unpack(args, i, math.min(i + SLICE - 1, n)))
  end
end

-- Calls a command whose arguments are all of one kind. Returns the sum of its replies, if they are numbers.
local function call_all(command, args)
  local sum = 0
  for i = 1, #args, SLICE do
    local reply = call(command, unpack(args, i, math.min(i + SLICE - 1, #args)))
    if type(reply) == 'number' then sum = sum + reply end
  end
  return sum
end

local function read_all(command, key, args)
  if #args == 0 then return {} end
  if #args <= SLICE then
    return call(command, key, unpack(args))
  end
  local all = {}
  for i = 1, #args, SLICE do
    for _, value in ipairs(call(command, key, unpack(args, i, math.min(i + SLICE - 1, #args)))) do
      all[#all + 1] = value
    end
  end
  return all
end

-- Whether a record's header can be read: somebody may have edited it by hand.
local function readable(record)
  if not record or #record < 15 then return false end
  local priority, high, low = record:byte(3), record:byte(14, 15)
  return priority >= 1 and priority <= CRITICAL and #record >= 15 + 256 * high + low
end

local rewritten = {} -- task -> the record that this script writes

-- Returns the records of tasks; false for each that is lost or unreadable.
local function read_records(ids)
  local records = {}
  for i = 1, #ids, SLICE do
    local keys = {}
    for j = i, math.min(i + SLICE - 1, #ids) do keys[#keys + 1] = TASK .. ids[j] end
    for _, record in ipairs(call('MGET', unpack(keys))) do records[#records + 1] = readable(record) and record end
  end
  for i, id in ipairs(next(rewritten) and ids or {}) do records[i] = rewritten[id] or records[i] end
  return records
end

local function tenant_of(record) return (select(6, struct.unpack(HEADER, record))) end

local STEP_BACK = 1000000 -- µs: a stamp further ahead of the clock says that the clock was set back
-- Earlier releases take this for a plugin that they lack, and use the shard no more. They know nothing of layouts.
local LATER_RELEASE = 'fairactor-that-knows-more-shards'
local DAMAGED = 31622400000000 -- µs, a year: a stamp further ahead is none

-- Returns the plugins in the field of META, or false.
local function plugins_in(stored)
  stored = stored and stored:gsub(',' .. (LATER_RELEASE):gsub('%-', '%%-'), '')
  return stored and stored ~= ',' and stored
end

-- The shard's own state: a hybrid clock whose stamps only grow (Kulkarni et al. 2014), virtual time, the aging step, and
-- the shard's counts. If the server's clock is set back, the shard's goes on where it was: leases, delays and rates keep
-- their pace. It follows the server's again once that has caught up.
local shard
do
  local stored_meta = call('HMGET', META, 'stamp', 'virtual', 'step', 'total', 'torn', 'turned', 'fair_by', 'period',
    'plugins', 'behind', 'kinds', 'lanes', 'unsorted', 'compat', 'old_senders', 'limited', 'homes', 'largest', 'layout')
  local wall = microseconds()
  local ahead, stored = (tonumber(stored_meta[1]) or 0) - wall, tonumber(stored_meta[10]) or 0
  local behind = stored >= 0 and stored < DAMAGED and stored or 0
  if ahead <= 0 then
    behind = 0
  elseif ahead - behind > STEP_BACK and ahead < DAMAGED then
    behind = ahead
  end
  local now, kinds = wall + behind, stored_meta[11] or '0'
  shard = { -- one constructor, so the table need not grow
    wall = wall, wall_ms = math.floor(wall / 1000), -- the server's own clock, for calendars
    behind = behind, -- µs by which the server's clock is behind the shard's
    was_set = behind ~= stored,
    now = now, ms = math.floor(now / 1000),
    stamp = ahead > behind and ahead < DAMAGED and wall + ahead or now,
    first_clock = { stored_meta[2], stored_meta[8] }, -- virtual time and period of kind 0
    step = tonumber(stored_meta[3]),
    total = stored_meta[4],
    torn = stored_meta[5] == '1',
    turned = tonumber(stored_meta[6]), -- ms: when a runtime last took a turn
    by_time = stored_meta[7] == 'time',
    plugins = plugins_in(stored_meta[9]), -- ',a,b,': the plugins that every runtime needs
    later_only = stored_meta[9] and stored_meta[9]:find(LATER_RELEASE, 1, true), -- whether earlier releases are kept out
    kinds = kinds, -- the numbers of the kinds of runtimes (see kinds.lua), joined by commas
    several = kinds:find(',', 1, true) and true,
    lanes = stored_meta[12] == '1', -- whether there are lanes, or several kinds (see lanes.lua)
    unsorted = tonumber(stored_meta[13]), -- a stamp: tasks of before, in the common lane, may belong in others; nil: none
    compat = stored_meta[14] == '1', -- whether there are runtimes that know no lanes
    old_senders = stored_meta[15] == '1', -- whether there may be senders that know none
    limited = stored_meta[16] == '1', -- whether tasks or actors have limits (see limits.lua)
    homes = stored_meta[17], -- packed: which dedicated runtimes the index lacks (see homes.lua)
    largest = tonumber(stored_meta[18]) or 1024, -- bytes: no live record is larger, as far as is known (see budget.lua)
    has_larger = false,
    epoch = tonumber((stored_meta[19] or '0'):match('^%d+')) or 0, -- of the layout; odd while tenants move (see depart.lua)
    kind = false, suffix = false, ring = false, groups = false, idle = false, owed = false, group = false, virtual = false,
    period = false, -- see `act_for`
  }
end

-- Makes the script act for one kind of runtimes: its ring, its clock, its idle runtimes.
local function act_for(kind)
  shard.kind, shard.suffix = kind, kind == '0' and '' or ':' .. kind
  shard.ring, shard.groups, shard.idle = RING .. shard.suffix, GROUPS .. shard.suffix, IDLE .. shard.suffix
  shard.owed = kind == '0' and '' or '\31' .. kind -- where costs.lua keeps debts
  shard.group = kind == '0' and GROUP or KIND_GROUP .. kind .. ':'
  local clock = shard.first_clock
  if kind ~= '0' then clock = call('HMGET', META, 'virtual' .. shard.suffix, 'period' .. shard.suffix) end
  shard.virtual = tonumber(clock[1]) or 0
  shard.period = tonumber(clock[2]) or 0 -- how often virtual time has restarted
end
act_for(shard.several and shard.kinds:match('^%d+') or shard.kinds)

-- Returns the key of a tenant's mailbox in a lane; '' is the common one.
local function mailbox(name, lane)
  return lane == '' and QUEUE .. name or LANE_QUEUE .. #lane .. ':' .. lane .. ':' .. name
end

-- Keeps how far the server's clock is behind, if that has changed.
local function save_clock()
  if shard.was_set then call('HSET', META, 'behind', integer(shard.behind)) end
end

-- Notes that a live record has so many bytes. `save_shard` keeps what is new, so that turns measure what they claim.
local function note_size(bytes)
  if bytes <= shard.largest then return end
  shard.largest, shard.has_larger = 2 ^ math.ceil(math.log(bytes) / math.log(2)), true
end

local function next_stamp()
  shard.stamp = shard.stamp + 1
  return shard.stamp
end

-- The mark of a claim: number of the turn, ms when it was made, priority, cost charged, 1 if its runtime runs nothing
-- else, the length of the last part, 37 zero bytes, tenant, what the start took of limits (see limits.lua), or nothing. The
-- server keeps a hash with a value over 64 bytes as a table, not as a list that it has to search.
local MARK = '>c8dBdBHxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'
local function pack_mark(turn, priority, cost, name, alone, taken)
  if not taken then return struct.pack(MARK, turn, shard.ms, priority, cost, alone and 1 or 0, 0) .. name end
  taken = cmsgpack.pack(taken)
  return struct.pack(MARK, turn, shard.ms, priority, cost, alone and 1 or 0, #taken) .. name .. taken
end
local function turn_in(mark) return mark:sub(1, 8) end
local function priority_in(mark) return mark:byte(17) end
local function made_at(mark) return (struct.unpack('>d', mark:sub(9, 16))) end
local function length_of_taken(mark) return 256 * mark:byte(27) + mark:byte(28) end
local function tenant_in(mark) return shard.limited and mark:sub(66, -1 - length_of_taken(mark)) or mark:sub(66) end
-- Returns a mark with what the start took of limits changed.
local function with_taken(mark, taken)
  local name, packed = tenant_in(mark), cmsgpack.pack(taken)
  return mark:sub(1, 26) .. struct.pack('>H', #packed) .. mark:sub(29, 65) .. name .. packed
end
local function taken_in(mark)
  local length = length_of_taken(mark)
  return length > 0 and cmsgpack.unpack(mark:sub(-length)) or {}
end

-- Returns a task's place in its mailbox: lower goes first.
local function place(stamp, priority)
  return math.floor(stamp - (priority == CRITICAL and CRITICAL_JUMP or priority * shard.step))
end

-- The first and the last write of a script that writes more than one thing (`save_shard` includes the last). Redis does
-- not roll back: if a script fails in between, all scripts are refused until mend.lua has run.
local function begin_writing() call('HSET', META, 'torn', '1') end
local function end_writing() call('HSET', META, 'torn', '') end

-- @scope
