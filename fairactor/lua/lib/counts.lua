-- Counts tasks, by tenant and for the whole shard.
--
-- A tenant's counts are one packed string. Live tasks are counted by priority: those in the mailbox are queued, the
-- others have started, so a claim changes no count. The string also says how many tasks have ended of late, and BACKLOG
-- is an index of the tenants with many live tasks. Both are for those who look; no script decides by them.

-- @include lib/base.lua

-- Indexes of counts; 1 to 6 are the live tasks by priority, WAITING are the scheduled ones.
local WAITING, DEFERRED, FINISHED, FAILED, CANCELED = 7, 8, 9, 10, 11
local MAX_SECONDS = 4294967295
local KEEP_UNTIL = 12 -- unix seconds until which totals outlive the last task

-- How many tasks have finished or failed of late, as below: a number, or the stored counts, which begin with it.
local RECENT = 13

-- RECENT comes first; a release before has written zeros there. Counts of live tasks are small, those of ended ones may grow
-- for years. This is longer than 64 bytes (see MARK).
local COUNTS_FORMAT = '>xxxxxI4I4I4I4I4I4I4I4dddI4'
local COUNTS_WITH_STRING, COUNTS_WITH_NUMBER = '>c5I4I4I4I4I4I4I4I4dddI4', '>I5I4I4I4I4I4I4I4I4dddI4'
local NO_COUNTS = string.rep('\0', 65)
local ENDED = { [DONE] = FINISHED, [DEAD_STATE] = FAILED, [CANCELED_STATE] = CANCELED }

-- Each task that has finished or failed counts 1, and after t seconds exp(-t / FADES). The sum is stored as a number that
-- stays the same while time passes: its logarithm plus the time in units of FADES. So numbers of different times compare.
local FADES = 60 -- s
local FADES_SINCE = 1700000000 -- unix seconds
local FINE = 65536 -- parts of a unit
local FAR_AHEAD = 25 -- units: a number that is further ahead of the clock is damage

-- In BACKLOG stand the tenants with so many live tasks, with their number rounded down to three binary digits. So the index
-- is written rarely, and never for tenants with small mailboxes.
local INDEXED_FROM = 32

local function live(c) return c[1] + c[2] + c[3] + c[4] + c[5] + c[6] end

local function pack_counts(c)
  local format = type(c[RECENT]) == 'number' and COUNTS_WITH_NUMBER or COUNTS_WITH_STRING
  return struct.pack(format, c[RECENT], unpack(c, 1, KEEP_UNTIL))
end

-- Returns counts that were stored; new ones if `packed` is false.
local function unpack_counts(packed)
  if not packed then return { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 } end
  local c = { struct.unpack(COUNTS_FORMAT, packed) }
  c[RECENT] = packed -- in place of the position behind
  return c
end

local counts = {}
local fell = {} -- tenant -> how many of its live tasks end, or leave for another state, in this script
local ended = {} -- tenant -> how many of its tasks finish or fail in this script
local is_recounted = false -- whether the index is empty, because a repair makes it anew
local total, all_ended = unpack_counts(shard.total), 0

-- Returns a number of live tasks as the index has it; 0: the tenant does not stand there.
local function rounded(n)
  if n < INDEXED_FROM then return 0 end
  local _, digits = math.frexp(n)
  return n - n % 2 ^ (digits - 3)
end

local units, exp, log = (shard.now / 1e6 - FADES_SINCE) / FADES, math.exp, math.log

-- Adds `n` tasks to RECENT. To what it is rounded depends on the clock, so that rounding cancels out. Returns whether a
-- release before has written the counts.
local function add_recent(c, n)
  local stored = c[RECENT]
  if type(stored) == 'string' then stored = struct.unpack('>I5', stored) end
  local ahead = stored / FINE - units
  if ahead < FAR_AHEAD then n = n + exp(ahead) end
  local number = (units + log(n)) * FINE + shard.now % 1000 / 1000
  c[RECENT] = number > 1 and number < 1e12 and number or 1
  return stored == 0
end

local was_busy = live(total) > 0

-- Loads the counts of `names`. `save_counts` writes all that are loaded.
local function load_counts(names)
  local missing = {}
  for _, name in ipairs(names) do
    if not counts[name] then
      counts[name] = true
      missing[#missing + 1] = name
    end
  end
  local packed = read_all('HMGET', COUNTS, missing)
  for i, name in ipairs(missing) do counts[name] = unpack_counts(packed[i]) end
end

-- Adds `n` to a count of a tenant and of the shard.
local function add(name, index, n)
  local c = counts[name]
  c[index] = c[index] + n
  if n < 0 then fell[name] = (fell[name] or 0) - n end
  total[index] = total[index] + n
end

-- Keeps totals as long as a record with that time to live.
local function keep_totals(c, ttl_ms)
  c[KEEP_UNTIL] = math.max(c[KEEP_UNTIL], math.min(math.ceil(shard.now / 1e6 + ttl_ms / 1000), MAX_SECONDS))
end

-- Counts a task that ended, and keeps the tenant's totals as long as the record.
local function add_ended(name, state, ttl_ms)
  add(name, ENDED[state], 1)
  if state ~= CANCELED_STATE then ended[name], all_ended = (ended[name] or 0) + 1, all_ended + 1 end
  if ttl_ms > 0 then keep_totals(counts[name], ttl_ms) end
end

-- Returns what the index has of a tenant before this script.
local function number_before(c)
  return not is_recounted and type(c[RECENT]) == 'string' and rounded(live(unpack_counts(c[RECENT]))) or 0
end

-- Writes the loaded counts, and the index. Drops the counts of tenants without tasks and totals to keep.
local function save_counts()
  local keep, drop, drained, lists, indexed, small = {}, {}, {}, {}, {}, {}
  for name, c in pairs(counts) do
    local n, in_old_form = live(c), false
    local gone = n + c[WAITING] + c[DEFERRED] == 0
    local before = n + (fell[name] or 0) >= INDEXED_FROM and number_before(c) or 0
    if ended[name] then in_old_form = add_recent(c, ended[name]) end
    if n >= INDEXED_FROM or before > 0 or in_old_form then
      local number = rounded(n)
      if number == 0 then
        small[#small + 1] = name
      elseif number ~= before or in_old_form then
        indexed[#indexed + 1], indexed[#indexed + 2] = number, name
      end
    end
    if gone and c[KEEP_UNTIL] * 1e6 <= shard.now then
      drop[#drop + 1] = name
      if c[KEEP_UNTIL] > 0 then lists[#lists + 1] = ENDED_OF .. name end -- see ended_tasks.lua
    else
      keep[#keep + 1], keep[#keep + 2] = name, pack_counts(c)
      if gone then drained[#drained + 1], drained[#drained + 2] = integer(c[KEEP_UNTIL]), name end
    end
  end
  if all_ended > 0 then add_recent(total, all_ended) end
  ended, all_ended = {}, 0
  write_all('HSET', COUNTS, keep)
  write_all('HDEL', COUNTS, drop)
  call_all('UNLINK', lists)
  write_all('ZADD', DRAINED, drained)
  write_all('ZADD', BACKLOG, indexed)
  write_all('ZREM', BACKLOG, small)
end

-- @scope
