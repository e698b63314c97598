// The levels that begin with oriented particles, one after the other. Data sets with fewer levels leave earlier; a process
// cannot be called twice, so each rung is the same sub-workflow under a name of its own. Only as many are set up as the
// data sets can need.
include { LEVEL as LEVEL_1 } from './level'
include { LEVEL as LEVEL_2 } from './level'
include { LEVEL as LEVEL_3 } from './level'
include { LEVEL as LEVEL_4 } from './level'
include { LEVEL as LEVEL_5 } from './level'
include { LEVEL as LEVEL_6 } from './level'
include { LEVEL as LEVEL_7 } from './level'
include { LEVEL as LEVEL_8 } from './level'

workflow LADDER {
    take:
    starts // [meta, settings of the levels that are left, series, given mask, particle set, what the reference is made from, given map]
    rungs // the most levels that a data set has

    main:
    left = starts.filter { row -> row[1] }
    LEVEL_1(left.map { row -> rung_of(row) })
    finals = LEVEL_1.out.finals
    jobs = LEVEL_1.out.jobs
    left = left.join(LEVEL_1.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    if (rungs > 1) {
        LEVEL_2(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_2.out.finals)
        jobs = jobs.mix(LEVEL_2.out.jobs)
        left = left.join(LEVEL_2.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (rungs > 2) {
        LEVEL_3(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_3.out.finals)
        jobs = jobs.mix(LEVEL_3.out.jobs)
        left = left.join(LEVEL_3.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (rungs > 3) {
        LEVEL_4(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_4.out.finals)
        jobs = jobs.mix(LEVEL_4.out.jobs)
        left = left.join(LEVEL_4.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (rungs > 4) {
        LEVEL_5(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_5.out.finals)
        jobs = jobs.mix(LEVEL_5.out.jobs)
        left = left.join(LEVEL_5.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (rungs > 5) {
        LEVEL_6(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_6.out.finals)
        jobs = jobs.mix(LEVEL_6.out.jobs)
        left = left.join(LEVEL_6.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (rungs > 6) {
        LEVEL_7(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_7.out.finals)
        jobs = jobs.mix(LEVEL_7.out.jobs)
        left = left.join(LEVEL_7.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (rungs > 7) {
        LEVEL_8(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_8.out.finals)
        jobs = jobs.mix(LEVEL_8.out.jobs)
        left = left.join(LEVEL_8.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    left.subscribe { row -> error("${row[0].id} has ${row[1].size()} levels more than are set up.") }

    emit:
    finals = finals
    jobs = jobs
}

// What a rung begins with.
def rung_of(row) {
    return [row[0], row[1][0]] + row[2..6]
}

// What the next one begins with: the levels that are left and the particles of this one; a map is given to the first only.
def after_rung(row) {
    return [row[0], row[1].drop(1), row[2], row[3], row[7], row[8], []]
}
