// Polishing at bin 1: cycles until they bring nothing any more; the best map is what counts. A data set leaves as soon as
// it is done; a process cannot be called twice, so each cycle is the same sub-workflow under a name of its own.
include { CYCLE as CYCLE_1 } from './cycle'
include { CYCLE as CYCLE_2 } from './cycle'
include { CYCLE as CYCLE_3 } from './cycle'
include { CYCLE as CYCLE_4 } from './cycle'
include { CYCLE as CYCLE_5 } from './cycle'
include { CYCLE as CYCLE_6 } from './cycle'
include { CYCLE as CYCLE_7 } from './cycle'
include { CYCLE as CYCLE_8 } from './cycle'
include { CYCLE as CYCLE_9 } from './cycle'
include { CYCLE as CYCLE_10 } from './cycle'

workflow POLISHING {
    take:
    starts // [meta, polishing settings, level settings, series, particle set, half maps, mask job, post-process job]

    main:
    begin = starts.map { meta, settings, level, series, particles, maps, mask, postprocess ->
        [meta, settings, level, 1, start(series, particles, maps, mask, postprocess)]
    }
    CYCLE_1(begin)
    after_1 = CYCLE_1.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    CYCLE_2(after_1)
    after_2 = CYCLE_2.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    CYCLE_3(after_2)
    after_3 = CYCLE_3.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    CYCLE_4(after_3)
    after_4 = CYCLE_4.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    CYCLE_5(after_4)
    after_5 = CYCLE_5.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    CYCLE_6(after_5)
    after_6 = CYCLE_6.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    CYCLE_7(after_6)
    after_7 = CYCLE_7.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    CYCLE_8(after_7)
    after_8 = CYCLE_8.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    CYCLE_9(after_8)
    after_9 = CYCLE_9.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    CYCLE_10(after_9)

    emit:
    jobs = CYCLE_1.out.jobs.mix(CYCLE_2.out.jobs, CYCLE_3.out.jobs, CYCLE_4.out.jobs, CYCLE_5.out.jobs, CYCLE_6.out.jobs, CYCLE_7.out.jobs, CYCLE_8.out.jobs, CYCLE_9.out.jobs, CYCLE_10.out.jobs)
    maps = CYCLE_1.out.maps.mix(CYCLE_2.out.maps, CYCLE_3.out.maps, CYCLE_4.out.maps, CYCLE_5.out.maps, CYCLE_6.out.maps, CYCLE_7.out.maps, CYCLE_8.out.maps, CYCLE_9.out.maps, CYCLE_10.out.maps)
}

// What a cycle begins with: the tilt-series tables, particles and half maps that are built upon, the best post-processing
// so far, and whether this cycle changed or improved anything, and how many in a row did not.
def start(series, particles, maps, mask, postprocess) {
    return [series: series, particles: particles, maps: maps, mask: mask, postprocess: postprocess, best: postprocess, changed: false, improved: false, stale: 0]
}

def next(row) {
    def state = row[4]
    return row[0..2] + [row[3] + 1, state + [stale: state.improved ? 0 : state.stale + 1, unchanged: !state.changed, changed: false, improved: false]]
}

// Without a change the next cycle would only repeat this one.
def goes_on(row) {
    return row[3] <= row[1].cycles && row[4].stale < row[1].patience && !row[4].unchanged
}
