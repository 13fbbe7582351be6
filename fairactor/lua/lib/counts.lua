-- Counts tasks, by tenant and for the whole shard.
--
-- A tenant's counts are one packed string. Live tasks are counted by priority: those in the mailbox are queued, the
-- others have started, so a claim changes no count.

-- @include lib/base.lua

-- Indexes of counts; 1 to 6 are the live tasks by priority, WAITING are the scheduled ones.
local WAITING, DEFERRED, FINISHED, FAILED, CANCELED = 7, 8, 9, 10, 11
local MAX_SECONDS = 4294967295
local KEEP_UNTIL = 12 -- unix seconds until which totals outlive the last task

-- Counts of live tasks are small, those of ended ones may grow for years. The first 5 bytes make this longer than 64
-- (see MARK).
local COUNTS_FORMAT = '>xxxxxI4I4I4I4I4I4I4I4dddI4'
local NO_COUNTS = string.rep('\0', 65)
local ENDED = { [DONE] = FINISHED, [DEAD_STATE] = FAILED, [CANCELED_STATE] = CANCELED }

local counts = {}
local total = { struct.unpack(COUNTS_FORMAT, shard.total or NO_COUNTS) }

local function live(c) return c[1] + c[2] + c[3] + c[4] + c[5] + c[6] end
local function pack_counts(c) return struct.pack(COUNTS_FORMAT, unpack(c, 1, KEEP_UNTIL)) end

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
  for i, name in ipairs(missing) do counts[name] = { struct.unpack(COUNTS_FORMAT, packed[i] or NO_COUNTS) } end
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

-- Writes the loaded counts. Drops those of tenants without tasks and totals to keep.
local function save_counts()
  local keep, drop, drained, lists = {}, {}, {}, {}
  for name, c in pairs(counts) do
    local gone = live(c) + c[WAITING] + c[DEFERRED] == 0
    if gone and c[KEEP_UNTIL] * 1e6 <= shard.now then
      drop[#drop + 1] = name
      if c[KEEP_UNTIL] > 0 then lists[#lists + 1] = ENDED_OF .. name end -- see ended_tasks.lua
    else
      keep[#keep + 1], keep[#keep + 2] = name, pack_counts(c)
      if gone then drained[#drained + 1], drained[#drained + 2] = integer(c[KEEP_UNTIL]), name end
    end
  end
  write_all('HSET', COUNTS, keep)
  write_all('HDEL', COUNTS, drop)
  call_all('UNLINK', lists)
  write_all('ZADD', DRAINED, drained)
end

-- @scope
