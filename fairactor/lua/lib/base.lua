-- What every script shares: time, the shard's own state, variadic calls, and the layout of a record.

local call = redis.call

-- States of a record, its first byte. While a task lives, its state is where its id stands.
local LIVE, DONE, DEAD_STATE, CANCELED_STATE = 'L', 'F', 'X', 'C'

-- state, deliveries, priority, attempt, stamp in µs, length of the tenant's name, the name; then the body.
local HEADER = '>c1BBHdHc0'

local CRITICAL = 6
local CRITICAL_JUMP = 4e15 -- µs: puts every critical task before all others, and keeps them exact doubles

local function microseconds()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Redis reads numbers as text, and Lua would write large ones in scientific notation.
local function integer(n) return string.format('%.0f', n) end
local function exact(n)
  if n % 1 == 0 and n < 1e15 then return string.format('%d', n) end
  return string.format('%.17g', n)
end

local SLICE = 4000 -- arguments in one call: Lua's stack holds 8,000; even, so that pairs stay together

local function write_all(command, key, args, n)
  n = n or #args
  for i = 1, n, SLICE do
    call(command, key, unpack(args, i, math.min(i + SLICE - 1, n)))
  end
end

-- A command whose arguments are all alike; the sum of its replies, where they are numbers.
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

-- Whether the header of a record can be read, and counted by: somebody may have written there by hand.
local function readable(record)
  if not record or #record < 15 then return false end
  local priority, high, low = record:byte(3), record:byte(14, 15)
  return priority >= 1 and priority <= CRITICAL and #record >= 15 + 256 * high + low
end

local rewritten = {} -- task -> its record, as this script is to write it

-- The records of tasks; false for one that is lost or cannot be read.
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

-- The shard's own state: a hybrid clock whose stamps only grow, even when the server's clock steps back
-- (Kulkarni et al. 2014), virtual time, the aging step, and the counts of the whole shard.
local shard = {}
do
  local meta = call('HMGET', META, 'stamp', 'virtual', 'step', 'total', 'torn', 'turned', 'fair_by', 'period',
    'plugins')
  shard.now = microseconds()
  shard.ms = math.floor(shard.now / 1000)
  shard.stamp = math.max(tonumber(meta[1]) or 0, shard.now)
  shard.virtual = tonumber(meta[2]) or 0
  shard.step = tonumber(meta[3])
  shard.total = meta[4]
  shard.torn = meta[5] == '1'
  shard.turned = tonumber(meta[6]) -- ms: when a runtime took a turn last
  shard.by_time = meta[7] == 'time'
  shard.period = tonumber(meta[8]) or 0 -- counts the times when virtual time began anew
  shard.plugins = meta[9] -- ',a,b,': those without which nobody may work on the shard
end

local function next_stamp()
  shard.stamp = shard.stamp + 1
  return shard.stamp
end

-- The mark of a claim: number of its turn, when it was made in ms, priority, what it was charged with, 40 bytes of
-- nothing, the tenant. A hash that has held more than 64 bytes in one value is a table to the server, and no list that
-- it searches through.
local MARK = '>c8dBdxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'
local function pack_mark(turn, priority, cost, name) return struct.pack(MARK, turn, shard.ms, priority, cost) .. name end
local function turn_in(mark) return mark:sub(1, 8) end
local function priority_in(mark) return mark:byte(17) end
local function tenant_in(mark) return mark:sub(66) end

-- Where a task stands in its mailbox: lower goes first.
local function place(stamp, priority)
  if priority == CRITICAL then
    return integer(stamp - CRITICAL_JUMP)
  end
  return integer(stamp - priority * shard.step)
end

-- The first write and the last of a script that writes more than one thing; `save_shard` is such a last one, too. Redis
-- does not roll back: where an error comes between the two, the mark stays, and the next script is refused until `mend`
-- has run.
local function begin_writing() call('HSET', META, 'torn', '1') end
local function end_writing() call('HSET', META, 'torn', '') end

-- @scope
