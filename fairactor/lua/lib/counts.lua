-- Counts tasks, by tenant and for the whole shard.
--
-- A tenant's counts are one packed string. Live tasks are counted by priority: those in the mailbox are queued, the
-- others have started, so a claim changes no count. The string also says how many attempts have ended of late, and BACKLOG
-- is an index of the tenants with many live tasks. Both are for those who look; no script decides by them.

-- @include lib/base.lua

-- Indexes of counts; 1 to 6 are the live tasks by priority, WAITING are the scheduled ones.
local WAITING, DEFERRED, FINISHED, FAILED, CANCELED = 7, 8, 9, 10, 11
local MAX_SECONDS = 4294967295
local KEEP_UNTIL = 12 -- unix seconds until which totals outlive the last task

local RECENT = 13 -- how many attempts have ended of late, as below; 0 in what a release before has written
local RAN = 14 -- not stored: how many attempts end in this script
local BEFORE = 15 -- not stored: how many live tasks the index knows of; UNKNOWN if a release before has written the counts

-- RECENT comes first. Counts of live tasks are small, those of ended ones may grow for years. This is longer than 64 bytes
-- (see MARK).
local COUNTS_FORMAT = '>I5I4I4I4I4I4I4I4I4dddI4'
local NO_COUNTS = string.rep('\0', 65)
local ENDED = { [DONE] = FINISHED, [DEAD_STATE] = FAILED, [CANCELED_STATE] = CANCELED }

-- Each attempt that ends counts 1, and after t seconds exp(-t / FADES). The sum, s, is stored as a number that stays the
-- same while time passes: its logarithm plus the time in units of FADES. So numbers of different times can be compared.
local FADES = 60 -- s
local FADES_SINCE = 1700000000 -- unix seconds
local FINE = 65536 -- parts of a unit
local MOST_RECENT = 1099511627775 -- what five bytes have room for
local FAR_AHEAD = 25 -- units: a number that is further ahead of the clock is damage

-- In BACKLOG stand the tenants with so many live tasks, with their number rounded down to three binary digits. So the index
-- is written rarely, and never for tenants with small mailboxes.
local INDEXED_FROM = 16
local UNKNOWN = 1e300

local function live(c) return c[1] + c[2] + c[3] + c[4] + c[5] + c[6] end
local function pack_counts(c) return struct.pack(COUNTS_FORMAT, c[RECENT], unpack(c, 1, KEEP_UNTIL)) end

local function arrange_counts(recent, a, b, c, d, e, f, waiting, deferred, finished, failed, canceled, keep)
  return { a, b, c, d, e, f, waiting, deferred, finished, failed, canceled, keep, recent, 0,
    recent == 0 and UNKNOWN or a + b + c + d + e + f }
end

-- Returns counts that were stored; new ones if `packed` is false.
local function unpack_counts(packed)
  if not packed then return { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0 } end
  return arrange_counts(struct.unpack(COUNTS_FORMAT, packed))
end

local counts = {}
local total = unpack_counts(shard.total)

-- Returns a number of live tasks as the index has it; 0: the tenant does not stand there.
local function rounded(n)
  if n < INDEXED_FROM then return 0 end
  local _, digits = math.frexp(n)
  return n - n % 2 ^ (digits - 3)
end

-- Returns RECENT after `n` more attempts have ended, at least 1. What it is rounded to depends on the clock, so that
-- rounding cancels out.
local function with_recent(recent, n)
  local units = (shard.now / 1e6 - FADES_SINCE) / FADES
  local ahead = recent / FINE - units
  local sum = n + (ahead < FAR_AHEAD and math.exp(ahead) or 0)
  return math.max(1, math.min(math.floor((units + math.log(sum)) * FINE + shard.now % 1000 / 1000), MOST_RECENT))
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
  total[index] = total[index] + n
end

-- Keeps totals as long as a record with that time to live.
local function keep_totals(c, ttl_ms)
  c[KEEP_UNTIL] = math.max(c[KEEP_UNTIL], math.min(math.ceil(shard.now / 1e6 + ttl_ms / 1000), MAX_SECONDS))
end

-- Counts a task that ended, and keeps the tenant's totals as long as the record.
local function add_ended(name, state, ttl_ms)
  add(name, ENDED[state], 1)
  if ttl_ms > 0 then keep_totals(counts[name], ttl_ms) end
end

local function save_attempts(c)
  if c[RAN] > 0 then
    c[RECENT], c[RAN] = with_recent(c[RECENT], c[RAN]), 0
  elseif c[RECENT] == 0 then
    c[RECENT] = 1
  end
end

-- Writes the loaded counts, and the index. Drops the counts of tenants without tasks and totals to keep.
local function save_counts()
  local keep, drop, drained, indexed, small = {}, {}, {}, {}, {}
  for name, c in pairs(counts) do
    local n, before = live(c), c[BEFORE]
    local gone = n + c[WAITING] + c[DEFERRED] == 0
    if n ~= before and (n >= INDEXED_FROM or before >= INDEXED_FROM) then
      local number = rounded(n)
      if number == 0 then
        small[#small + 1] = name
      elseif number ~= rounded(before) then
        indexed[#indexed + 1], indexed[#indexed + 2] = number, name
      end
    end
    c[BEFORE] = n
    if gone and c[KEEP_UNTIL] * 1e6 <= shard.now then
      drop[#drop + 1] = name
    else
      save_attempts(c)
      keep[#keep + 1], keep[#keep + 2] = name, pack_counts(c)
      if gone then drained[#drained + 1], drained[#drained + 2] = integer(c[KEEP_UNTIL]), name end
    end
  end
  save_attempts(total)
  write_all('HSET', COUNTS, keep)
  write_all('HDEL', COUNTS, drop)
  write_all('ZADD', DRAINED, drained)
  write_all('ZADD', BACKLOG, indexed)
  write_all('ZREM', BACKLOG, small)
end

-- @scope
